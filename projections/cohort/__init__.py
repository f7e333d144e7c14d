"""What cohort builders ask: subjects, studies, series, findings, facts and tags, as of any position."""

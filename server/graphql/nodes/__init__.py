"""What there is, as GraphQL types: subjects, studies, series, instances, findings, facts and tags."""

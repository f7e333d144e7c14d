"""What curators keep: projects and their members, saved cohorts, datasets with their terms, versions and splits, as of any position."""

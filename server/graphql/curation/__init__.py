"""What curators keep, in GraphQL: projects, tags, saved cohorts and what changed in them, datasets frozen, split and compared."""

"""What auditors are served: checkpoints and proofs, timelines and lineage, bundles."""

"""The commands of this paper's reproduction, which `sinkprune` offers beside its own: a file each."""

"""Work on the processes of a Ray cluster, or of this machine where there is none."""

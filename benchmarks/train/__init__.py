"""Tables of trainings, the manifests they read, and what made those."""

"""VoteNet: points vote for the centres of objects, and clusters of votes become boxes (arXiv 1904.09664)."""

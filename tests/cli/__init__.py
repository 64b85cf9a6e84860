"""What a user sees on the command line."""

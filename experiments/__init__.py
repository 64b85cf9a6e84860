"""What pre-training brings: questions about learning, answered on generated rooms. They take hours."""

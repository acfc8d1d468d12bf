"""What the user is told: pure functions from facts to rich's renderables (for people) and to JSON (for programs)."""

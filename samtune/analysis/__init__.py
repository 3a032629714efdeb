"""What a study's trials say: pure functions over what was journaled."""

"""How good answers are: judged questions, figures over rankings, and whether a difference between two is chance."""

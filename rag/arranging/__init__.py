"""What happens to ranked passages before they are answered, if somebody asks for it: thinned, reordered, widened."""

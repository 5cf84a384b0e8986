"""madre, the control plane: decides who is awake and stands in for who sleeps."""

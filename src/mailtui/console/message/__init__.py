"""One message on a screen: why it is still here, its way, its attempts, what it says."""

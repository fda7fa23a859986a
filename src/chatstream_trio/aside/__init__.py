"""What takes a while and changes nothing: done beside the event loop, with pauses for others."""

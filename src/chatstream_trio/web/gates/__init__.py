"""What a request passes before the app sees it: by which name, from which page, to what path."""

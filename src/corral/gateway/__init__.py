"""The gateway to model APIs: the one process that holds their keys."""

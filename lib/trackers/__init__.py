"""One file per experiment tracker, each a subclass of lib.trackers.base.Tracker; lib/tracking.py knows them by name."""

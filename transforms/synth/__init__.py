"""EGO4D-layout recordings with known truth: what they show, play and shake is stated in ``truth.json``.

``options`` says what can be asked for, ``story`` what happens when, ``motion`` how the camera turns,
``scene`` what it sees, ``sensors`` what the other sensors measure, ``event`` what several cameras hear
together, ``media`` encodes, ``layout`` writes.
"""

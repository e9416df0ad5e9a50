"""Profiles and views of a window: see :mod:`align.transforms.views.views`."""

from align.transforms.views.mel import fbank, log_mel
from align.transforms.views.views import PLAIN, PROFILES, Profile, find_profile, profile_options, view

__all__ = ["PLAIN", "PROFILES", "Profile", "fbank", "find_profile", "log_mel", "profile_options", "view"]

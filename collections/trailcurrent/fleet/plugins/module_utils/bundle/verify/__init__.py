"""From a bundle to a release that is trusted: judged, verified, unpacked."""

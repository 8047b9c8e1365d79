"""Pictures: patches, gates, forecasts, losses, gradient checks. Each needs matplotlib when called."""

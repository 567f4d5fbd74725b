"""The admission webhook: defaulting, validation and the check of ConfigMaps, as upstream's webhook."""

//! From configuration files to Envoy: reader, model, translation, publication

"""Values of the OCI image and distribution specifications: digests, references, manifests. No IO."""

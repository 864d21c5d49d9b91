"""The egress engine: every connection that leaves a sandbox is decided and made here."""

"""firestore: the wire."""

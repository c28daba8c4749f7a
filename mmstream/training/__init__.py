"""From recordings and what is known of them to trained models with measured numbers."""

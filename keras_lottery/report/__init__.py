"""What a person looks at. Knows nothing of TensorFlow."""

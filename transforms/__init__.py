"""What happens to the data: pure functions first, thin PTransforms where one is needed."""

"""From a policy to pictures, and from pictures to scores."""

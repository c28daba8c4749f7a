"""Recipes: each reads sources -> ... -> sinks. Import them as `mmstream.pipelines`."""

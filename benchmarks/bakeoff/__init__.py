"""The bake-off: many ways to align the same latents, by amount of training data, tuned alike: `fusemix bakeoff`."""

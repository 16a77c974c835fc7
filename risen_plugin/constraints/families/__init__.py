"""The constraints, one family of IFEval and IFTrain per module."""

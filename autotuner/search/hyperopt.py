"""HyperOpt's TPE and annealing."""

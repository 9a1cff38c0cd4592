print("minivmm")

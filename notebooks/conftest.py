import os

# Of the kernels that the notebooks are tested in.
os.environ["KVAE_QUICK"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

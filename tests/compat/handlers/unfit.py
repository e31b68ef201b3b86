"""A worker that finds itself unfit before its first job."""

import runpod


@runpod.serverless.register_fitness_check
def weights_are_there():
    raise RuntimeError("no weights on the disk")


runpod.serverless.start({"handler": lambda job: "never"})

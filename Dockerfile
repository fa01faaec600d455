# fieldctr on CPUs, without CUDA's 4 GB. Results go to the folder that is mounted, tables are read from FIELDCTR_DATA:
#   docker build -t fieldctr .
#   docker run --rm -v "$PWD:/work" -v /my/tables:/tables:ro -e FIELDCTR_DATA=/tables fieldctr train dataset=kuairand
# CI has no docker and does not build this: tests/test_install.py only reads it. With a GPU: README, Install.
FROM python:3.12-slim
# LightGBM's wheel brings no OpenMP
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
# first: it is the large part, and stays in the cache as the code changes
RUN pip install --no-cache-dir 'torch>=2.11,<3' --index-url https://download.pytorch.org/whl/cpu
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY fieldctr fieldctr
RUN pip install --no-cache-dir '.[minilm,lightgbm,sklearn,tensorboard]'
WORKDIR /work
ENTRYPOINT ["fieldctr"]
CMD ["--help"]

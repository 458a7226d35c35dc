# One image for every service of docker-compose.yml; each names its own command.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/lambdahat
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY lambdahat lambdahat
COPY llc llc
COPY store store
COPY worker worker
COPY api api
COPY migrations migrations
RUN /opt/lambdahat/bin/pip install --no-cache-dir --constraint constraints.txt '.[server]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home lambdahat \
    && install --directory --owner=lambdahat --group=lambdahat /blobs
COPY --from=build /opt/lambdahat /opt/lambdahat
ENV PATH=/opt/lambdahat/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LAMBDAHAT_BLOB_DIR=/blobs
USER lambdahat
VOLUME /blobs
EXPOSE 8000
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]

"""`lvae encode --help-runner NAME`: what an engine needs, what to type, and what of it has been run."""

from lvae.manifests.errors import LvaeError

COMMON = """\
Workers need the same wheel of this package as the command, and nothing else of yours. SOURCE and DATASET must mean the
same to all of them: URLs (s3://..., gs://...; extras s3, gcp), or paths of a file system that all mount, with
--shared-path. The same command again goes on, from any machine; 'lvae watch DATASET' follows it from any other.
"""

DASK = """\
Dask: a scheduler and workers over TCP. pip install 'latent-vae[dask]' everywhere.

    dask scheduler --port 8786
    dask worker tcp://HOST:8786 --nthreads 1 --nworkers 8        # on each machine: as many as it has cores
    lvae encode SOURCE DATASET --shared-path -- --runner=dask --dask_client_address=tcp://HOST:8786

One thread a worker: parts run on one thread each, and more threads share one network and Python's lock. On machines
with GPUs start one worker a GPU, each with its own CUDA_VISIBLE_DEVICES, and --device auto or cuda; workers on
one machine that see several GPUs take one each. The partition size is set so that parts spread. Before the job
every worker is asked for its package, the dataset's folder and the images; the dashboard's address is printed
(pip install bokeh for its pages). A worker that dies costs its part; one that stops answering is retired after a
minute.

Run here: all of this over loopback, with workers killed and stopped (make test-cluster). Not run: several machines,
GPUs.
"""

PORTABLE = """\
Portable: Beam's own job service and a pool that starts workers, the protocol that Flink, Spark and Dataflow speak.

    python -m apache_beam.runners.portability.local_job_service_main --port 8099
    python -m apache_beam.runners.worker.worker_pool_main --service_port=50000
    lvae encode SOURCE DATASET --shared-path -- --runner=portable --job_endpoint=localhost:8099 \\
        --environment_type=EXTERNAL --environment_config=localhost:50000

The pool starts workers as plain `python`: the environment with the wheel must come first on its PATH, or nothing
happens until the job gives up after a minute. This job service gives all parts to one worker process: it proves a
setup, and scales nothing; for more cores of one machine use --workers, for more machines dask.

Run here: all of this over loopback (make test-cluster).
"""

FLINK = """\
Flink: a cluster of task managers, each with a worker pool beside it. Needs Java and Beam's job server jar, which Beam
fetches when it starts, or --flink_job_server_jar=FILE.

    docker run --network host IMAGE python -m apache_beam.runners.worker.worker_pool_main --service_port=50000
        # on every task manager's machine; IMAGE from the Dockerfile here
    lvae encode s3://B/images/ s3://B/latents -- --runner=flink --flink_master=HOST:8081 --flink_version=2.2 \\
        --parallelism=16 --environment_type=EXTERNAL --environment_config=localhost:50000

parallelism: task slots in all, one a core (on GPUs: one a GPU). A killed command leaves its job running; the next one
submits what has no receipt, and executions that overlap do no harm.

Run here: options checked, the graph built. Not run: Flink itself, which could not be had.
"""

SPARK = """\
Spark 3: like Flink, a worker pool on every executor's machine. Needs Java and Beam's job server jar, which Beam fetches
when it starts, or --spark_job_server_jar=FILE.

    docker run --network host IMAGE python -m apache_beam.runners.worker.worker_pool_main --service_port=50000
    lvae encode s3://B/images/ s3://B/latents -- --runner=spark --spark_master_url=spark://HOST:7077 \\
        --environment_type=EXTERNAL --environment_config=localhost:50000

--spark_submit_uber_jar with --spark_rest_url=http://HOST:6066 submits to a remote cluster in place of a local driver.

Run here: options checked, the graph built. Not run: Spark itself, which could not be had.
"""

DATAFLOW = """\
Dataflow: Google starts the machines. pip install 'latent-vae[gcp]' 'apache-beam[gcp]'; push an image made with the
Dockerfile.

    lvae encode gs://B/images/ gs://B/latents -- --runner=dataflow --project=P --region=R \\
        --temp_location=gs://B/tmp --staging_location=gs://B/stage \\
        --sdk_container_image=REGION-docker.pkg.dev/P/R/latent-vae:TAG --sdk_location=container \\
        --machine_type=n2-standard-16 --max_num_workers=20

With GPUs, one model each: Dataflow starts a process for every core and all of them see the GPU, so add

        --machine_type=g2-standard-8 --disk_size_gb=100 \\
        --dataflow_service_option='worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver' \\
        --experiments=no_use_multiple_sdk_containers --number_of_worker_harness_threads=1

and --device cuda before the --. Quotas to look at: CPUs and in-use addresses of the region, the GPU's, disks.

Run here: options checked, the graph built. Not run: Dataflow; the GPU options are those of its documentation.
"""

TEXTS = {"dask": DASK, "portable": PORTABLE, "flink": FLINK, "spark": SPARK, "dataflow": DATAFLOW}


def help_for(name: str) -> str:
    """LvaeError for a runner that nobody knows."""
    key = name.lower().removesuffix("runner")
    if key not in TEXTS:
        raise LvaeError(f"--help-runner {name}", "there is no such runner", f"Choose one of {', '.join(TEXTS)}.")
    return f"{TEXTS[key]}\n{COMMON}"

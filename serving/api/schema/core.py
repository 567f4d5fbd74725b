"""Tables of the Kubernetes types inside a Revision: containers, probes, volumes, the pod spec."""

from __future__ import annotations

from serving.api.schema.nodes import (
    BOOL,
    INT32,
    INT64,
    INT_OR_STRING,
    QUANTITY,
    STRING,
    STRINGS,
    TIME,
    Array,
    Dictionary,
    Field,
    Opaque,
    Scalar,
    inline,
    named,
    opaque,
    pointer,
    pruned,
    struct,
)

EMPTY_STRING = Scalar("string", default="")
REFERENCE_NAME = Field(EMPTY_STRING, via="LocalObjectReference")
MODE = pointer(INT32)

OWNER_REFERENCE = struct(
    "v1.OwnerReference",
    apiVersion=STRING,
    kind=STRING,
    name=STRING,
    uid=named("types.UID"),
    controller=pointer(BOOL),
    blockOwnerDeletion=pointer(BOOL),
)
OBJECT_META = struct(
    "v1.ObjectMeta",
    name=STRING,
    generateName=STRING,
    namespace=STRING,
    selfLink=STRING,
    uid=named("types.UID"),
    resourceVersion=STRING,
    generation=INT64,
    creationTimestamp=TIME,
    deletionTimestamp=pointer(TIME),
    deletionGracePeriodSeconds=pointer(INT64),
    labels=Dictionary(STRING),
    annotations=Dictionary(STRING),
    ownerReferences=Array(OWNER_REFERENCE),
    finalizers=Array(STRING),
    managedFields=Array(Opaque("v1.ManagedFieldsEntry")),
)

OBJECT_FIELD_SELECTOR = struct(
    "v1.ObjectFieldSelector", apiVersion=STRING, fieldPath=STRING, required=("fieldPath",), atomic=True
)
RESOURCE_FIELD_SELECTOR = struct(
    "v1.ResourceFieldSelector",
    containerName=STRING,
    resource=STRING,
    divisor=QUANTITY,
    required=("resource",),
    atomic=True,
)
CONFIG_MAP_KEY_SELECTOR = struct(
    "v1.ConfigMapKeySelector",
    name=REFERENCE_NAME,
    key=STRING,
    optional=pointer(BOOL),
    required=("key",),
    atomic=True,
)
SECRET_KEY_SELECTOR = struct(
    "v1.SecretKeySelector", name=REFERENCE_NAME, key=STRING, optional=pointer(BOOL), required=("key",), atomic=True
)
ENV_VAR_SOURCE = struct(
    "v1.EnvVarSource",
    fieldRef=opaque(pointer(OBJECT_FIELD_SELECTOR)),
    resourceFieldRef=opaque(pointer(RESOURCE_FIELD_SELECTOR)),
    configMapKeyRef=pointer(CONFIG_MAP_KEY_SELECTOR),
    secretKeyRef=pointer(SECRET_KEY_SELECTOR),
    fileKeyRef=pruned(pointer(Opaque("v1.FileKeySelector"))),
)
ENV_VAR = struct("v1.EnvVar", name=STRING, value=STRING, valueFrom=pointer(ENV_VAR_SOURCE), required=("name",))
CONFIG_MAP_ENV_SOURCE = struct("v1.ConfigMapEnvSource", name=REFERENCE_NAME, optional=pointer(BOOL), atomic=True)
SECRET_ENV_SOURCE = struct("v1.SecretEnvSource", name=REFERENCE_NAME, optional=pointer(BOOL), atomic=True)
ENV_FROM_SOURCE = struct(
    "v1.EnvFromSource",
    prefix=STRING,
    configMapRef=pointer(CONFIG_MAP_ENV_SOURCE),
    secretRef=pointer(SECRET_ENV_SOURCE),
)
CONTAINER_PORT = struct(
    "v1.ContainerPort",
    name=STRING,
    hostPort=pruned(INT32),
    containerPort=INT32,
    protocol=named("v1.Protocol", default="TCP"),
    hostIP=pruned(STRING),
)

HTTP_HEADER = struct("v1.HTTPHeader", name=STRING, value=STRING, required=("name", "value"))
HTTP_GET_ACTION = struct(
    "v1.HTTPGetAction",
    path=STRING,
    port=INT_OR_STRING,
    host=STRING,
    scheme=named("v1.URIScheme"),
    httpHeaders=Array(HTTP_HEADER, atomic=True),
)
PROBE_HANDLER = struct(
    "v1.ProbeHandler",
    exec=pointer(struct("v1.ExecAction", command=STRINGS)),
    httpGet=pointer(HTTP_GET_ACTION, go="HTTPGet"),
    tcpSocket=pointer(struct("v1.TCPSocketAction", port=INT_OR_STRING, host=STRING), go="TCPSocket"),
    grpc=pointer(struct("v1.GRPCAction", port=INT32, service=pointer(EMPTY_STRING)), go="GRPC"),
)
PROBE = struct(
    "v1.Probe",
    inline("ProbeHandler", PROBE_HANDLER),
    initialDelaySeconds=INT32,
    timeoutSeconds=INT32,
    periodSeconds=INT32,
    successThreshold=INT32,
    failureThreshold=INT32,
    terminationGracePeriodSeconds=pruned(pointer(INT64)),
)

RESOURCE_LIST = Dictionary(QUANTITY, go="v1.ResourceList")
RESOURCE_REQUIREMENTS = struct(
    "v1.ResourceRequirements",
    limits=RESOURCE_LIST,
    requests=RESOURCE_LIST,
    claims=pruned(Array(Opaque("v1.ResourceClaim"))),
)
SECCOMP_PROFILE = struct(
    "v1.SeccompProfile",
    type=named("v1.SeccompProfileType"),
    localhostProfile=pointer(STRING),
    required=("type",),
)
CAPABILITIES = struct(
    "v1.Capabilities",
    add=Array(named("v1.Capability"), atomic=True),
    drop=Array(named("v1.Capability"), atomic=True),
)
SECURITY_CONTEXT = struct(
    "v1.SecurityContext",
    capabilities=pointer(CAPABILITIES),
    privileged=pointer(BOOL),
    seLinuxOptions=pruned(pointer(Opaque("v1.SELinuxOptions"))),
    windowsOptions=pruned(pointer(Opaque("v1.WindowsSecurityContextOptions"))),
    runAsUser=pointer(INT64),
    runAsGroup=pointer(INT64),
    runAsNonRoot=pointer(BOOL),
    readOnlyRootFilesystem=pointer(BOOL),
    allowPrivilegeEscalation=pointer(BOOL),
    procMount=pruned(pointer(named("v1.ProcMountType"))),
    seccompProfile=pointer(SECCOMP_PROFILE),
    appArmorProfile=pruned(pointer(Opaque("v1.AppArmorProfile"))),
)
VOLUME_MOUNT = struct(
    "v1.VolumeMount",
    name=STRING,
    readOnly=BOOL,
    recursiveReadOnly=pruned(pointer(named("v1.RecursiveReadOnlyMode"))),
    mountPath=STRING,
    subPath=STRING,
    mountPropagation=pointer(named("v1.MountPropagationMode")),
    subPathExpr=pruned(STRING),
    required=("mountPath", "name"),
)
CONTAINER = struct(
    "v1.Container",
    name=STRING,
    image=STRING,
    command=STRINGS,
    args=STRINGS,
    workingDir=STRING,
    ports=Array(CONTAINER_PORT),
    envFrom=Array(ENV_FROM_SOURCE, atomic=True),
    env=Array(ENV_VAR, keys=("name",)),
    resources=RESOURCE_REQUIREMENTS,
    resizePolicy=pruned(Array(Opaque("v1.ContainerResizePolicy"))),
    restartPolicy=pruned(pointer(named("v1.ContainerRestartPolicy"))),
    restartPolicyRules=pruned(Array(Opaque("v1.ContainerRestartRule"))),
    volumeMounts=Array(VOLUME_MOUNT, keys=("mountPath",)),
    volumeDevices=pruned(Array(Opaque("v1.VolumeDevice"))),
    livenessProbe=pointer(PROBE),
    readinessProbe=pointer(PROBE),
    startupProbe=pointer(PROBE),
    lifecycle=pruned(pointer(Opaque("v1.Lifecycle"))),
    terminationMessagePath=STRING,
    terminationMessagePolicy=named("v1.TerminationMessagePolicy"),
    imagePullPolicy=named("v1.PullPolicy"),
    securityContext=pointer(SECURITY_CONTEXT),
    stdin=pruned(BOOL),
    stdinOnce=pruned(BOOL),
    tty=pruned(BOOL),
)

KEY_TO_PATH = struct("v1.KeyToPath", key=STRING, path=STRING, mode=MODE, required=("key", "path"))
KEYS_TO_PATHS = Array(KEY_TO_PATH, atomic=True)
SECRET_VOLUME_SOURCE = struct(
    "v1.SecretVolumeSource", secretName=STRING, items=KEYS_TO_PATHS, defaultMode=MODE, optional=pointer(BOOL)
)
CONFIG_MAP_VOLUME_SOURCE = struct(
    "v1.ConfigMapVolumeSource",
    name=REFERENCE_NAME,
    items=KEYS_TO_PATHS,
    defaultMode=MODE,
    optional=pointer(BOOL),
    atomic=True,
)
DOWNWARD_API_FILE = struct(
    "v1.DownwardAPIVolumeFile",
    path=STRING,
    fieldRef=pointer(OBJECT_FIELD_SELECTOR),
    resourceFieldRef=pointer(RESOURCE_FIELD_SELECTOR),
    mode=MODE,
    required=("path",),
)
VOLUME_PROJECTION = struct(
    "v1.VolumeProjection",
    secret=pointer(
        struct(
            "v1.SecretProjection", name=REFERENCE_NAME, items=KEYS_TO_PATHS, optional=pointer(BOOL), atomic=True
        )
    ),
    downwardAPI=pointer(
        struct("v1.DownwardAPIProjection", items=Array(DOWNWARD_API_FILE, atomic=True)), go="DownwardAPI"
    ),
    configMap=pointer(
        struct(
            "v1.ConfigMapProjection", name=REFERENCE_NAME, items=KEYS_TO_PATHS, optional=pointer(BOOL), atomic=True
        )
    ),
    serviceAccountToken=pointer(
        struct(
            "v1.ServiceAccountTokenProjection",
            audience=STRING,
            expirationSeconds=pointer(INT64),
            path=STRING,
            required=("path",),
        )
    ),
    clusterTrustBundle=pruned(pointer(Opaque("v1.ClusterTrustBundleProjection"))),
    podCertificate=pruned(pointer(Opaque("v1.PodCertificateProjection"))),
)
EMPTY_DIR_VOLUME_SOURCE = struct(
    "v1.EmptyDirVolumeSource", medium=named("v1.StorageMedium"), sizeLimit=pointer(QUANTITY)
)
PVC_VOLUME_SOURCE = struct("v1.PersistentVolumeClaimVolumeSource", claimName=STRING, readOnly=BOOL)
IMAGE_VOLUME_SOURCE = struct("v1.ImageVolumeSource", reference=STRING, pullPolicy=named("v1.PullPolicy"))

_OTHER_VOLUMES = {
    key: pruned(pointer(Opaque(f"v1.{go}VolumeSource")))
    for key, go in {
        "gcePersistentDisk": "GCEPersistentDisk",
        "awsElasticBlockStore": "AWSElasticBlockStore",
        "gitRepo": "GitRepo",
        "nfs": "NFS",
        "iscsi": "ISCSI",
        "glusterfs": "Glusterfs",
        "rbd": "RBD",
        "flexVolume": "Flex",
        "cinder": "Cinder",
        "cephfs": "CephFS",
        "flocker": "Flocker",
        "downwardAPI": "DownwardAPI",
        "fc": "FC",
        "azureFile": "AzureFile",
        "vsphereVolume": "VsphereVirtualDisk",
        "quobyte": "Quobyte",
        "azureDisk": "AzureDisk",
        "photonPersistentDisk": "PhotonPersistentDisk",
        "portworxVolume": "Portworx",
        "scaleIO": "ScaleIO",
        "storageos": "StorageOS",
    }.items()
}
VOLUME_SOURCE = struct(
    "v1.VolumeSource",
    _OTHER_VOLUMES,
    hostPath=opaque(pointer(Opaque("v1.HostPathVolumeSource"))),
    emptyDir=opaque(pointer(EMPTY_DIR_VOLUME_SOURCE)),
    secret=pointer(SECRET_VOLUME_SOURCE),
    persistentVolumeClaim=opaque(pointer(PVC_VOLUME_SOURCE)),
    configMap=pointer(CONFIG_MAP_VOLUME_SOURCE),
    projected=pointer(
        struct("v1.ProjectedVolumeSource", sources=Array(VOLUME_PROJECTION, atomic=True), defaultMode=MODE)
    ),
    csi=opaque(pointer(Opaque("v1.CSIVolumeSource"), go="CSI")),
    ephemeral=opaque(pointer(Opaque("v1.EphemeralVolumeSource"))),
    image=opaque(pointer(IMAGE_VOLUME_SOURCE)),
)
VOLUME = struct("v1.Volume", inline("VolumeSource", VOLUME_SOURCE), name=STRING, required=("name",))

POD_SECURITY_CONTEXT = struct(
    "v1.PodSecurityContext",
    seLinuxOptions=pointer(Opaque("v1.SELinuxOptions")),
    windowsOptions=pointer(Opaque("v1.WindowsSecurityContextOptions")),
    runAsUser=pointer(INT64),
    runAsGroup=pointer(INT64),
    runAsNonRoot=pointer(BOOL),
    supplementalGroups=Array(INT64),
    supplementalGroupsPolicy=pointer(named("v1.SupplementalGroupsPolicy")),
    fsGroup=pointer(INT64, go="FSGroup"),
    sysctls=Array(Opaque("v1.Sysctl")),
    fsGroupChangePolicy=pointer(named("v1.PodFSGroupChangePolicy")),
    seccompProfile=pointer(SECCOMP_PROFILE),
    appArmorProfile=pointer(Opaque("v1.AppArmorProfile")),
    seLinuxChangePolicy=pointer(named("v1.PodSELinuxChangePolicy")),
)
LOCAL_OBJECT_REFERENCE = struct("v1.LocalObjectReference", name=EMPTY_STRING, atomic=True)

POD_SPEC = struct(
    "v1.PodSpec",
    volumes=Array(VOLUME, keys=("name",)),
    initContainers=opaque(Array(CONTAINER)),
    containers=Array(CONTAINER),
    ephemeralContainers=pruned(Array(Opaque("v1.EphemeralContainer"))),
    restartPolicy=pruned(named("v1.RestartPolicy")),
    terminationGracePeriodSeconds=pruned(pointer(INT64)),
    activeDeadlineSeconds=pruned(pointer(INT64)),
    dnsPolicy=Field(named("v1.DNSPolicy"), go="DNSPolicy"),
    nodeSelector=Dictionary(STRING, atomic=True),
    serviceAccountName=STRING,
    serviceAccount=pruned(Field(STRING, go="DeprecatedServiceAccount")),
    automountServiceAccountToken=pointer(BOOL),
    nodeName=pruned(STRING),
    hostNetwork=BOOL,
    hostPID=BOOL,
    hostIPC=BOOL,
    shareProcessNamespace=pointer(BOOL),
    securityContext=opaque(pointer(POD_SECURITY_CONTEXT)),
    imagePullSecrets=Array(LOCAL_OBJECT_REFERENCE, keys=("name",)),
    hostname=pruned(STRING),
    subdomain=pruned(STRING),
    affinity=opaque(pointer(Opaque("v1.Affinity"))),
    schedulerName=STRING,
    tolerations=opaque(Array(Opaque("v1.Toleration"))),
    hostAliases=opaque(Array(Opaque("v1.HostAlias"))),
    priorityClassName=STRING,
    priority=pruned(pointer(INT32)),
    dnsConfig=opaque(pointer(Opaque("v1.PodDNSConfig"), go="DNSConfig")),
    readinessGates=pruned(Array(Opaque("v1.PodReadinessGate"))),
    runtimeClassName=pointer(STRING),
    enableServiceLinks=pointer(BOOL),
    preemptionPolicy=pruned(pointer(named("v1.PreemptionPolicy"))),
    overhead=pruned(RESOURCE_LIST),
    topologySpreadConstraints=opaque(Array(Opaque("v1.TopologySpreadConstraint"))),
    setHostnameAsFQDN=pruned(pointer(BOOL)),
    os=pruned(pointer(Opaque("v1.PodOS"), go="OS")),
    hostUsers=pruned(pointer(BOOL)),
    schedulingGates=pruned(Array(Opaque("v1.PodSchedulingGate"))),
    resourceClaims=pruned(Array(Opaque("v1.PodResourceClaim"))),
    resources=pruned(pointer(RESOURCE_REQUIREMENTS)),
    hostnameOverride=pruned(pointer(STRING)),
    workloadRef=pruned(pointer(Opaque("v1.WorkloadReference"))),
)

"""The balancers that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_balancers() -> dict[str, str]:
    """Names and homes of the balancers."""
    return {
        "aligned": "mtlkit_balancers.aligned:AlignedMTL",
        "cagrad": "mtlkit_balancers.cagrad:CAGrad",
        "config": "mtlkit_balancers.config:ConFIG",
        "db-mtl": "mtlkit_balancers.db_mtl:DBMTL",
        "dualproj": "mtlkit_balancers.dualproj:DualProj",
        "dwa": "mtlkit_balancers.dwa:DWA",
        "equal": "mtlkit_balancers.equal:Equal",
        "excessmtl": "mtlkit_balancers.excessmtl:ExcessMTL",
        "fairgrad": "mtlkit_balancers.fairgrad:FairGrad",
        "famo": "mtlkit_balancers.famo:FAMO",
        "fixed": "mtlkit_balancers.fixed:Fixed",
        "geometric": "mtlkit_balancers.geometric:Geometric",
        "graddrop": "mtlkit_balancers.graddrop:GradDrop",
        "gradnorm": "mtlkit_balancers.gradnorm:GradNorm",
        "gradvac": "mtlkit_balancers.gradvac:GradVac",
        "imtl-g": "mtlkit_balancers.imtl_g:IMTLG",
        "imtl-l": "mtlkit_balancers.imtl_l:IMTLL",
        "log": "mtlkit_balancers.log:Log",
        "mgda": "mtlkit_balancers.mgda:MGDA",
        "moco": "mtlkit_balancers.moco:MoCo",
        "nash": "mtlkit_balancers.nash:NashMTL",
        "pcgrad": "mtlkit_balancers.pcgrad:PCGrad",
        "rlw": "mtlkit_balancers.rlw:RLW",
        "softadapt": "mtlkit_balancers.softadapt:SoftAdapt",
        "stch": "mtlkit_balancers.stch:STCH",
        "torchjd": "mtlkit_balancers.any_torchjd:TorchJD",
        "uncertainty": "mtlkit_balancers.uncertainty:Uncertainty",
        "upgrad": "mtlkit_balancers.upgrad:UPGrad",
        "uw-so": "mtlkit_balancers.uw_so:UWSO",
    }

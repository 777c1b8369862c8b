"""Every error of the library has a place in the service's problem documents."""

from model.errors import AvsaError
from service.problems import STATUS_OF_CODE


def test_every_code_of_the_library_has_a_status() -> None:
    def tree(kind: type[AvsaError]) -> list[type[AvsaError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]

    codes = {kind.code for kind in tree(AvsaError)}

    assert len(codes) > 5
    assert codes <= STATUS_OF_CODE.keys()

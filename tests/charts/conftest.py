import pytest

from tests.charts.rendering import VALUES, render


@pytest.fixture(params=VALUES)
def objects(request):
    """The rendered chart, for each set of values."""
    return render(request.param)

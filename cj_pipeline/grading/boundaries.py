"""Where the boundaries between grades lie, given anchors whose scores are themselves uncertain.

The model, on the logit scale:

    true score of essay i    theta = scores + error, error ~ N(0, covariance) jointly
    what its graders saw     y_i = theta_i + e_i,    e_i ~ N(0, disagreement^2)
    its grade                k where boundary_(k-1) < y_i < boundary_k
    anchors                  chosen by grade, anywhere within it alike, out of essays whose
                             theta vary by `spread`: so theta_i lies nearer to the middle than y_i

It is ordered probit with errors in the variables: an anchor shows where boundaries lie only as
sharply as its own score is known. Steps of the scale have log-normal widths around a common
width, so that boundaries are monotone and a grade with few or no anchors borrows its width from
the others. The posterior's mode is found by Newton steps; draws from the normal curve there are
then moved to the posterior itself by Hamiltonian Monte Carlo, all at once and from one fixed
seed, so the same data give the same figures every time.

Which essays to grade, and whether to, is `projection`; judging the anchors is `anchors`.

References:
    Albert and Chib (1993), doi:10.1080/01621459.1993.10476321, for ordered probit by latent
    scores; Fuller (1987), Measurement Error Models, for known error covariances; Neal (2011),
    arXiv:1206.1901, for Hamiltonian Monte Carlo.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.grading.disagreement import (
    Disagreement,
    DisagreementFound,
    told_by,
    usual_disagreement,
)

CENTRE_SD = 5.0
"""Logits; a boundary near the anchors may lie anywhere, this only keeps it finite."""

LOG_RANGE_MEAN, LOG_WIDTH_SD = float(np.log(6.0)), 0.6
"""A scale's steps together span 1.9 to 19 logits (95 %), what cohorts span that judges can
distinguish apart: four times the 0.5-5 logits by which essays differ. It decides only where anchors
of two or three neighbouring grades are all there is."""

LOG_WIDTH_SPREAD = 0.35
"""One step is as a rule between half and twice as wide as another (95 % of ratios: 0.38-2.6)."""

LOG_END_SPREAD = 0.7
"""The lowest and the highest grade are open: their anchors may lie far out."""

N_MOVES, N_LEAPS = 3, 4
"""Three moves reach the posterior within Monte Carlo error of sixty, precise scores and thirty
anchors included; four leaps of about 0.35 are a quarter turn, after which a place is forgotten."""

_MODE_GAIN = 1e-3
"""In log density. The mode is only where draws set out from."""

_BLOCK_PRODUCTS = 250_000
"""Up to here OpenBLAS multiplies in one thread. Its threads wait for each other by spinning, and
on a machine with other work to do that made thousands of small products fifty times slower."""

_SEED = 20240601


@dataclass(frozen=True, eq=False)
class BoundaryPosterior:
    """Draws of everything that decides grades, each as good as the other.

    Attributes:
        boundaries: In logits, rising along a row; shape (n_draws, n_steps - 1).
        disagreement: Standard deviation between graders and judge, in logits; (n_draws,).
        width: The common width of a step, in logits; (n_draws,).
        anchor_errors: What the anchors' scores are off by, in logits; (n_draws, n_anchors).
        slopes: Of the grades' log likelihood with respect to the logarithm of the disagreement,
            all else in the draw held; (n_draws,).
    """

    boundaries: Floats
    disagreement: Floats
    width: Floats
    anchor_errors: Floats
    slopes: Floats

    @property
    def in_steps(self) -> Floats:
        """The disagreement in steps; shape (n_draws,)."""
        return np.asarray(self.disagreement / self.width)

    def found(self, n_steps: int) -> DisagreementFound:
        """Return what is known of the disagreement, and what these grades told of it.

        Args:
            n_steps: Of the scale.
        """
        lower, median, upper = np.quantile(self.in_steps, [0.025, 0.5, 0.975]).tolist()
        told = told_by(np.log(self.in_steps), self.slopes, usual_disagreement(n_steps))
        return DisagreementFound(median, lower, upper, told)


def fit_boundaries(
    n_steps: int,
    steps: Ints,
    scores: Floats,
    covariance: Floats,
    *,
    spread: float,
    expected: Disagreement | None = None,
    n_draws: int = 2048,
) -> BoundaryPosterior:
    """Return what the anchors say about the boundaries.

    Args:
        n_steps: How many grades the scale has, two or more.
        steps: Each anchor's grade as an index from the lowest; shape (n_anchors,), one or more.
        scores: The anchors' scores in logits; shape (n_anchors,).
        covariance: Of those scores; may be singular; shape (n_anchors, n_anchors).
        spread: Standard deviation, in logits, of the essays that anchors were chosen from.
        expected: What is taken of the disagreement beforehand; by default the usual.
        n_draws: A power of two.
    """
    model = _Model.of(
        n_steps, steps, scores, covariance, spread, expected or usual_disagreement(n_steps)
    )
    at = model.unpack(_draws(model, n_draws))
    return BoundaryPosterior(
        boundaries=at.edges[:, 1:-1],
        disagreement=at.disagreement,
        width=np.exp(at.log_width),
        anchor_errors=model.anchor_errors(at),
        slopes=model.slopes_by_disagreement(at),
    )


def grade_probabilities(
    posterior: BoundaryPosterior,
    scores: Floats,
    covariance_with_anchors: Floats,
    variances: Floats,
    anchor_covariance: Floats,
) -> Floats:
    """Return each essay's probability of each grade, over all that is uncertain.

    Args:
        posterior: From `fit_boundaries` on the anchors of `anchor_covariance`.
        scores: The essays' scores in logits; shape (n_essays,).
        covariance_with_anchors: Shape (n_essays, n_anchors).
        variances: Of the essays' scores; shape (n_essays,).
        anchor_covariance: Shape (n_anchors, n_anchors).

    Returns:
        Shape (n_essays, n_steps); rows add up to one.
    """
    from scipy.special import ndtr

    # The least ridge: where all essays are anchors their covariance is singular.
    ridge = 1e-9 * np.trace(anchor_covariance) * np.eye(len(anchor_covariance))
    regression = np.linalg.solve(anchor_covariance + ridge, covariance_with_anchors.T).T
    left = variances - np.einsum("ij,ij->i", regression, covariance_with_anchors)
    left = np.clip(left, 0, None)
    n_boundaries = posterior.boundaries.shape[1]
    above = np.empty((len(scores), n_boundaries))
    # In slices, so that memory stays bounded whatever the size of the batch.
    for part in np.array_split(np.arange(len(scores)), 1 + len(scores) // 200):
        means = scores[part] + posterior.anchor_errors @ regression[part].T
        spread = np.sqrt(left[part] + posterior.disagreement[:, None] ** 2)
        for j in range(n_boundaries):
            z = (means - posterior.boundaries[:, j, None]) / spread
            above[part, j] = ndtr(z).mean(axis=0)
    padded = np.hstack([np.ones((len(scores), 1)), above, np.zeros((len(scores), 1))])
    probabilities = np.clip(-np.diff(padded, axis=1), 0, None)
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class _Model:
    """The log posterior over standardised parameters, each standard normal beforehand.

    A point is (centre, log width, log disagreement, one log ratio per step, shared errors).
    The anchors' error is split in two: independent parts, integrated out in closed form, as
    large as the covariance allows, and shared parts that carry the correlations.

    Here the lowest and the highest step are closed too, by edges of their own, because anchors
    were chosen by grade: how far an A lies above the boundary of A says something about widths.
    """

    steps: Ints
    scores: Floats
    own: Floats  # variances of the independent parts, (n_anchors,)
    loadings: Floats  # of the shared parts, (n_anchors, n_shared)
    midpoint: float
    pool_variance: float  # of the essays that anchors were chosen from
    sums: Floats  # widths to edges, (n_steps + 1, n_steps)
    spreads: Floats  # of the log ratios, (n_steps,)
    counts: Floats  # anchors per step, (n_steps,)
    expected: Disagreement  # beforehand

    @classmethod
    def of(  # noqa: PLR0917 -- the anchors, the pool, and what is taken beforehand
        cls,
        n_steps: int,
        steps: Ints,
        scores: Floats,
        covariance: Floats,
        spread: float,
        expected: Disagreement,
    ) -> _Model:
        own, loadings = _split_covariance(covariance)
        # Counted from an edge among the anchors, the least correlated parametrisation.
        reference = int(np.median(steps) + 0.5)
        edge, step = np.arange(n_steps + 1)[:, None], np.arange(n_steps)
        above = (step >= reference) & (step < edge)
        below = (step < reference) & (step >= edge)
        sums = above.astype(np.float64) - below.astype(np.float64)
        spreads = np.full(n_steps, LOG_WIDTH_SPREAD)
        spreads[[0, -1]] = LOG_END_SPREAD
        return cls(
            steps=steps,
            scores=scores,
            own=own,
            loadings=loadings,
            midpoint=float(np.mean(scores)),
            pool_variance=spread**2,
            sums=sums,
            spreads=spreads,
            counts=np.bincount(steps, minlength=n_steps).astype(np.float64),
            expected=expected,
        )

    @property
    def n_parameters(self) -> int:
        return 3 + len(self.spreads) + int(self.loadings.shape[1])

    def unpack(self, points: Floats) -> _Unpacked:
        """Return what points, of shape (n, n_parameters), mean."""
        n_steps, given = len(self.spreads), points
        # A trajectory that runs away is rejected afterwards; it must not overflow before.
        points = np.clip(points, -30, 30)
        log_width = LOG_RANGE_MEAN - np.log(n_steps) + LOG_WIDTH_SD * points[:, 1]
        log_ratio = self.expected.log_mean + self.expected.log_sd * points[:, 2]
        log_widths = log_width[:, None] + self.spreads * points[:, 3 : 3 + n_steps]
        centre = self.midpoint + CENTRE_SD * points[:, :1]
        widths = np.exp(log_widths)
        edges = centre + widths @ self.sums.T
        disagreement = np.exp(log_width + log_ratio)
        errors = points[:, 3 + n_steps :] @ self.loadings.T
        kept = self.pool_variance / (self.pool_variance + disagreement**2)
        variance = self.own + (kept * disagreement**2)[:, None]
        scale = np.sqrt(variance)
        means = self.scores + errors
        drawn = self.midpoint + kept[:, None] * (edges - self.midpoint)
        return _Unpacked(
            points=given,
            log_width=log_width,
            log_widths=log_widths,
            widths=widths,
            edges=edges,
            disagreement=disagreement,
            errors=errors,
            kept=kept,
            variance=variance,
            scale=scale,
            low=(drawn[:, self.steps] - means) / scale,
            high=(drawn[:, self.steps + 1] - means) / scale,
        )

    def log_density(self, points: Floats) -> Floats:
        """Return the log posterior up to a constant; points (n, n_parameters), result (n,)."""
        return self.log_density_at(self.unpack(points))

    def log_density_at(self, at: _Unpacked) -> Floats:
        """Return `log_density` of points that are unpacked already."""
        # Divided by the width: within its grade an anchor may lie anywhere, alike.
        return np.asarray(
            at.log_p.sum(axis=1)
            - at.log_widths @ self.counts
            - np.log(at.kept) * len(self.steps)
            - 0.5 * np.sum(at.points**2, axis=1)
        )

    def gradient(self, points: Floats) -> Floats:
        """Return the gradient of `log_density`; shape (n, n_parameters)."""
        return self.gradient_at(self.unpack(points))

    def gradient_at(self, at: _Unpacked) -> Floats:
        """Return `gradient` of points that are unpacked already."""
        log_p = at.log_p
        at_high = np.exp(np.minimum(-0.5 * at.high**2 - _HALF_LOG_2PI - log_p, _MAX_LOG_HAZARD))
        at_low = np.exp(np.minimum(-0.5 * at.low**2 - _HALF_LOG_2PI - log_p, _MAX_LOG_HAZARD))
        one_hot = np.eye(len(self.spreads) + 1)
        by_drawn = (at_high / at.scale) @ one_hot[self.steps + 1]
        by_drawn -= (at_low / at.scale) @ one_hot[self.steps]
        by_edge = at.kept[:, None] * by_drawn
        by_mean = (at_low - at_high) / at.scale
        by_variance = np.sum((at_low * at.low - at_high * at.high) / (2 * at.variance), axis=1)
        by_kept = np.sum(by_drawn * (at.edges - self.midpoint), axis=1) - len(self.steps) / at.kept
        by_noise = at.kept**2 * (by_variance - by_kept / self.pool_variance)
        by_log_scale = 2 * at.disagreement**2 * by_noise
        by_log_widths = (by_edge @ self.sums) * at.widths - self.counts
        columns = [
            CENTRE_SD * by_edge.sum(axis=1, keepdims=True),
            LOG_WIDTH_SD * (by_log_widths.sum(axis=1) + by_log_scale)[:, None],
            self.expected.log_sd * by_log_scale[:, None],
            self.spreads * by_log_widths,
            by_mean @ self.loadings,
        ]
        return np.hstack(columns) - at.points

    def slopes_by_disagreement(self, at: _Unpacked) -> Floats:
        """Return the log likelihood's slopes along the logarithm of the disagreement."""
        return np.asarray((self.gradient_at(at)[:, 2] + at.points[:, 2]) / self.expected.log_sd)

    def anchor_errors(self, at: _Unpacked) -> Floats:
        """Return draws of the anchors' errors given all else; shape (n_draws, n_anchors)."""
        from scipy.special import ndtr, ndtri

        n_draws, n_anchors = at.low.shape
        uniforms = _points(n_draws, 2 * n_anchors)
        # Truncated normals by inversion, in the tail where inversion keeps its digits.
        is_flipped = at.low > 0
        a, b = np.where(is_flipped, -at.high, at.low), np.where(is_flipped, -at.low, at.high)
        mass = ndtr(a) + uniforms[:, :n_anchors] * (ndtr(b) - ndtr(a))
        seen = np.clip(ndtri(np.clip(mass, 1e-300, None)), a, b)
        seen = np.where(is_flipped, -seen, seen)
        share = self.own / at.variance
        rest = np.sqrt(share * at.kept[:, None]) * at.disagreement[:, None]
        own = share * at.scale * seen + rest * ndtri(uniforms[:, n_anchors:])
        return np.asarray(at.errors + own)


@dataclass(frozen=True, eq=False)
class _Unpacked:
    """What points of the model mean; a row per point."""

    points: Floats
    log_width: Floats
    log_widths: Floats
    widths: Floats
    edges: Floats
    disagreement: Floats
    errors: Floats  # the anchors' shared errors
    kept: Floats  # of what graders saw, the share that is the essay's own
    variance: Floats  # of an anchor's score given what graders saw, but for shared errors
    scale: Floats  # its root
    low: Floats  # each anchor's grade's edges, drawn in by `kept`, standardised
    high: Floats

    @cached_property
    def log_p(self) -> Floats:
        """The logarithm of what lies between an anchor's edges; density and gradient share it."""
        return _log_interval(self.low, self.high)


_HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))
_MAX_LOG_HAZARD = 50.0
"""A hazard is about its argument, so e^50 is far outside; only lost digits would pass it."""


def _log_interval(low: Floats, high: Floats) -> Floats:
    """Return log(Phi(high) - Phi(low)), exact in both tails."""
    from scipy.special import log_ndtr, ndtr

    is_flipped = low > 0
    a, b = np.where(is_flipped, -high, low), np.where(is_flipped, -low, high)
    mass = ndtr(b) - ndtr(a)
    result = np.log(np.maximum(mass, 1e-290))
    # Logarithms of tails take four times as long, and only the farthest need them.
    is_far = mass < 1e-280
    if is_far.any():
        log_a, log_b = log_ndtr(a[is_far]), log_ndtr(b[is_far])
        result[is_far] = log_b + np.log(-np.expm1(np.minimum(log_a - log_b, -1e-12)))
    return np.asarray(result)


def _split_covariance(covariance: Floats) -> tuple[Floats, Floats]:
    """Return variances v and loadings L with covariance = diag(v) + L L', v as large as it can be
    in proportion to the diagonal."""
    deviations = np.sqrt(np.clip(np.diag(covariance), 1e-12, None))
    correlation = covariance / np.outer(deviations, deviations)
    values, vectors = np.linalg.eigh(correlation)
    independent = float(np.clip(values[0], 0, 1))
    shared = np.clip(values - independent, 0, None)
    keep = shared > 1e-9
    loadings = deviations[:, None] * vectors[:, keep] * np.sqrt(shared[keep])
    return independent * deviations**2, loadings


def _laplace(model: _Model) -> tuple[Floats, Floats]:
    """Return the posterior's mode and a root of its inverse curvature there."""
    point = np.zeros(model.n_parameters)
    value = model.log_density(point[None])[0]
    shrink = 0.5 ** np.arange(12)
    for _ in range(50):
        slope = model.gradient(point[None])[0]
        root = _root(_curvature(model, point))
        step = root @ (root.T @ slope)
        # Parameters are standard normal beforehand: further than this is no step, but a fall.
        step *= min(1.0, 3.0 / float(np.linalg.norm(step) + 1e-300))
        tries = point + shrink[:, None] * step
        values = model.log_density(tries)
        best = int(np.argmax(values))
        if not values[best] > value:
            break
        gain, point, value = values[best] - value, tries[best], values[best]
        if gain < _MODE_GAIN:
            break
    return point, _root(_curvature(model, point))


def _root(curvature: Floats) -> Floats:
    """Return R with R R' the inverse of the curvature, made positive where it is not."""
    # Beforehand every curvature is 1; where the posterior is not concave, that much is added.
    for added in (0.0, 1.0, 4.0, 16.0, 64.0):
        try:
            lower = np.linalg.cholesky(curvature + added * np.eye(len(curvature)))
        except np.linalg.LinAlgError:
            continue
        return np.asarray(np.linalg.inv(lower).T)
    return np.asarray(np.eye(len(curvature)) / np.sqrt(max(float(np.abs(curvature).max()), 1.0)))


def _curvature(model: _Model, point: Floats) -> Floats:
    """Return minus the Hessian of the log posterior, from differences of its gradient."""
    h = 1e-4
    moves = h * np.eye(len(point))
    slopes = model.gradient(np.vstack([point + moves, point - moves]))
    half = len(point)
    hessian = (slopes[:half] - slopes[half:]) / (2 * h)
    return np.asarray(-(hessian + hessian.T) / 2)


def _draws(model: _Model, n_draws: int) -> Floats:
    """Return draws from the posterior; shape (n_draws, n_parameters)."""
    from scipy.special import ndtri

    mode, root = _laplace(model)
    places = ndtri(_points(n_draws, len(mode)))
    log_weights = model.log_density(mode + places @ root.T) + 0.5 * np.sum(places**2, axis=1)
    weights = np.exp(log_weights - log_weights.max())
    # Cut off (Ionides 2008), so that no point represents a large part of the posterior alone.
    weights = np.minimum(weights, weights.mean() * np.sqrt(n_draws))
    reached = np.cumsum(weights / weights.sum())
    chosen = np.searchsorted(reached, (np.arange(n_draws) + 0.5) / n_draws)
    places = places[np.minimum(chosen, n_draws - 1)]
    rng = np.random.default_rng(_SEED)
    n_blocks = 1 + n_draws * len(mode) ** 2 // _BLOCK_PRODUCTS
    blocks = np.array_split(places, n_blocks)
    for _ in range(N_MOVES):
        blocks = [_moved(model, mode, root, block, rng) for block in blocks]
    return np.asarray(mode + np.concatenate(blocks) @ root.T)


def _moved(
    model: _Model, mode: Floats, root: Floats, places: Floats, rng: np.random.Generator
) -> Floats:
    """Return where each place, in units of `root` from the mode, is after one Hamiltonian move."""

    def unpack_at(at: Floats) -> _Unpacked:
        return model.unpack(mode + at @ root.T)

    def slopes(there: _Unpacked) -> Floats:
        return np.asarray(model.gradient_at(there) @ root)

    def energy(there: _Unpacked, speed: Floats) -> Floats:
        return np.asarray(0.5 * np.sum(speed**2, axis=1) - model.log_density_at(there))

    first = rng.standard_normal(places.shape)
    step = rng.uniform(0.2, 0.5, size=(len(places), 1))
    at, here = places, unpack_at(places)
    there, speed = here, first + 0.5 * step * slopes(here)
    for leap in range(N_LEAPS):
        at = at + step * speed
        there = unpack_at(at)
        speed = speed + (0.5 if leap == N_LEAPS - 1 else 1.0) * step * slopes(there)
    gain = energy(here, first) - energy(there, speed)
    is_taken = np.log(rng.uniform(size=len(places))) < gain
    return np.asarray(np.where(is_taken[:, None], at, places))


@lru_cache(maxsize=32)
def _points(n_points: int, n_dimensions: int) -> Floats:
    """Return scrambled Sobol points strictly inside the unit cube; the same at every call."""
    from scipy.stats import qmc

    points = qmc.Sobol(n_dimensions, seed=_SEED).random(n_points)
    points = np.clip(points, 1e-12, 1 - 1e-12)
    points.flags.writeable = False
    return np.asarray(points)

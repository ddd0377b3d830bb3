/* The point update of the acoustic wave equation, shared by every compiled kernel: C and CUDA.
 *
 * Equation (constant density, damped at the edges):   p_tt + k p_t = v^2 (p_xx + p_zz) + source
 * Scheme (second order in time, fourth in space; KAUST a2d_mod_abc24, as used for OpenFWI):
 *
 *   p[n+1] = (2 - kappa) p[n] - (1 - kappa) p[n-1] + alpha L p[n]
 *   L p    = 2 c1 p + c2 N1 + c3 N2,   c1 = -5/2, c2 = 4/3, c3 = -1/12 as float32 has them
 *
 * with alpha = (v dt / dx)^2, kappa = vmin * damping, the damping per step, and N1, N2 the sums of
 * the four neighbours at distance 1 and 2. L is symmetric, so with mu = alpha * lambda the adjoint
 * recursion is this same update run backwards in time.
 *
 * The released data was made in float32, whose 4/3 and -1/12 are off by 3e-8: so little that it
 * matters only near the noise, but everywhere and at every step alike, so that it is most of what
 * float32 did to a record (docs/notebook.md). So they are the float32 numbers in float64, too.
 *
 * Assumed: equal spacing in both directions; a grid that wraps around at its border, as the code
 * that made the released data does; REAL is float or double, defined by whoever includes this.
 */
#ifndef FWI_STEP_H
#define FWI_STEP_H

/* L p from the centre and the sums of its neighbours at distance 1 and 2. */
#define FWI_LAPLACIAN(REAL, centre, near, far) \
    ((REAL)-5.0 * (centre) + (REAL)(float)(4.0 / 3.0) * (near) + (REAL)(float)(-1.0 / 12.0) * (far))

/* p[n+1]; decay = 1 - kappa. Written with the difference p[n] - p[n-1], which is small, so that
 * float32 loses less than in the textbook form. */
#define FWI_STEP(centre, old, decay, alpha, laplacian) \
    ((centre) + (decay) * ((centre) - (old)) + (alpha) * (laplacian))

/* The released data's own arithmetic: every operation rounded, in the order of the code that made it,
 * no fused multiply-add (../released_arithmetic.py). Whoever includes this may say how an operation is rounded;
 * the plain operators are for code that is compiled without contraction. */
#ifndef FWI_ADD
#define FWI_ADD(a, b) ((a) + (b))
#define FWI_SUB(a, b) ((a) - (b))
#define FWI_MUL(a, b) ((a) * (b))
#endif

/* N1 or N2 */
#define FWI_RELEASED_SUM(up, down, left, right) FWI_ADD(FWI_ADD(FWI_ADD(up, down), left), right)

/* p[n+1] = (((2 - 5 alpha) - kappa) p[n] - (1 - kappa) p[n-1]) + alpha (c2 N1 + c3 N2); PRODUCT: of a
 * coefficient and a field, as it is rounded. */
#define FWI_RELEASED_STEP(REAL, PRODUCT, centre, old, kappa, alpha, near, far)                    \
    FWI_ADD(FWI_SUB(PRODUCT(FWI_SUB(FWI_ADD((REAL)2, FWI_MUL((REAL)-5, alpha)), kappa), centre), \
                    PRODUCT(FWI_SUB((REAL)1, kappa), old)),                                      \
            PRODUCT(alpha, FWI_ADD(PRODUCT((REAL)(float)(4.0 / 3.0), near),                      \
                                   PRODUCT((REAL)(float)(-1.0 / 12.0), far))))

/* dp[n+1] of the linearised field: its own step `dstep`, driven by the changes of alpha and, with
 * relative_vmin = dvmin / vmin, of vmin; driving = L p[n]. */
#define FWI_TANGENT(REAL, dstep, dalpha, driving, decay, relative_vmin, centre, old) \
    ((dstep) + (dalpha) * (driving) +                                                \
     (((REAL)1 - (decay)) * (relative_vmin)) * ((old) - (centre)))

/* What one imaged step adds to the gradient by alpha, times alpha: mu = mu[n+1], L p[n]. */
#define FWI_IMAGE(weight, mu, laplacian) ((weight) * (mu) * (laplacian))

/* What it adds to vmin times the derivative by vmin: p[n], mu_next = mu[n+2], mu = mu[n+1]. */
#define FWI_IMAGE_DAMPING(REAL, decay, p, mu_next, mu, alpha) \
    (((REAL)1 - (decay)) * (p) * ((mu_next) - (mu)) / (alpha))

#endif

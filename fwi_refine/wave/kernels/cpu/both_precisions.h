/* The row operations and time loops in float and in double, for the instruction set ISA; those of
 * the released data in float, which it was made in. */
#define PRECISION f32
#define REAL float
#include "rows.h"
#include "loops.h"
#include "released.h"
#undef PRECISION
#undef REAL
#define PRECISION f64
#define REAL double
#include "rows.h"
#include "loops.h"
#undef PRECISION
#undef REAL

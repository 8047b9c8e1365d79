"""The CUDA sources of `kernels.py`, by name: this table is the register of all kernels.

The bodies are plain C, one element of the result a thread, so that the tests can run them on a CPU. What
is known before the launch, every size and stride, is written in capitals and defined in front of the source:
divisions by a number that the compiler knows are multiplications, and loops over taps unroll.
"""

from __future__ import annotations

INDEX = """
    const whole index = (whole)blockIdx.x * (whole)blockDim.x + (whole)threadIdx.x;
    if (index >= count) return;
"""
# F features of P positions, GATES blocks of them a sample; PEEP: 0 no peepholes, 1 a weight a channel, 2 a map
GATE = """
    const whole rest = index % (F * P), at = index / (F * P) * (GATES * F * P) + rest;  // at: the first gate
"""
LSTM = f"""{INDEX}{GATE}
    const whole q = PEEP == 1 ? rest / P : rest, Q = PEEP == 1 ? F : F * P;  // the peephole's weight, and how many
"""
AXES = """
    const whole {0}2 = rest % {1}2; rest /= {1}2;
    const whole {0}1 = rest % {1}1; rest /= {1}1;
    const whole {0}0 = rest % {1}0; rest /= {1}0;
"""
TAPS = """
    for (whole k{0} = 0; k{0} < K{0}; k{0}++) {{
        const whole off{0} = at{0} + B{0} - k{0} * D{0};  // from the window's first tap: {0} is an axis
        if (off{0} < 0 || off{0} % S{0} || off{0} / S{0} >= O{0}) continue;
"""

SOURCES = {
    # the gates from z, and the new cell and hidden state
    "lstm_gates_forward": f"""
extern "C" __global__ void lstm_gates_forward(const whole count, const real* z, const real* c_prev,
        const real* w, real* gates, real* c, real* tanh_c, real* h) {{{LSTM}
    const real before = c_prev[index], half = 0.5;
    real zi = z[at], zf = z[at + F * P], zg = z[at + 2 * F * P], zo = z[at + 3 * F * P];
    if (PEEP) {{ zi += w[q] * before; zf += w[Q + q] * before; }}
    const real i = half * tanh(half * zi) + half, f = half * tanh(half * zf) + half, g = tanh(zg);
    const real now = f * before + i * g;
    if (PEEP) zo += w[2 * Q + q] * now;
    const real o = half * tanh(half * zo) + half, t = tanh(now);
    gates[at] = i; gates[at + F * P] = f; gates[at + 2 * F * P] = g; gates[at + 3 * F * P] = o;
    c[index] = now; tanh_c[index] = t; h[index] = o * t;
}}
""",
    # dz of the four gates, and the gradient of the cell before
    "lstm_gates_backward": f"""
extern "C" __global__ void lstm_gates_backward(const whole count, const real* dh, const real* dc_in,
        const real* gates, const real* tanh_c, const real* c_prev, const real* w, real* dz, real* dc_prev) {{{LSTM}
    const real i = gates[at], f = gates[at + F * P], g = gates[at + 2 * F * P], o = gates[at + 3 * F * P];
    const real t = tanh_c[index], one = 1;
    const real dzo = dh[index] * t * (o - o * o);
    real dc = dc_in[index] + dh[index] * (o * (one - t * t));
    if (PEEP) dc += w[2 * Q + q] * dzo;
    const real dzi = dc * g * (i - i * i), dzf = dc * c_prev[index] * (f - f * f), dzg = dc * i * (one - g * g);
    real before = dc * f;
    if (PEEP) before += w[q] * dzi + w[Q + q] * dzf;
    dz[at] = dzi; dz[at + F * P] = dzf; dz[at + 2 * F * P] = dzg; dz[at + 3 * F * P] = dzo;
    dc_prev[index] = before;
}}
""",
    # the gates of a GRU that resets after the state map, and the new hidden state
    "gru_gates_forward": f"""
extern "C" __global__ void gru_gates_forward(const whole count, const real* z_x, const real* z_h,
        const real* h_prev, real* r, real* u, real* n, real* h) {{{INDEX}{GATE}
    const real half = 0.5, one = 1;
    const real reset = half * tanh(half * (z_x[at] + z_h[at])) + half;
    const real update = half * tanh(half * (z_x[at + F * P] + z_h[at + F * P])) + half;
    const real fresh = tanh(z_x[at + 2 * F * P] + reset * z_h[at + 2 * F * P]);
    r[index] = reset; u[index] = update; n[index] = fresh;
    h[index] = (one - update) * fresh + update * h_prev[index];
}}
""",
    # both maps' dz, and the direct part of dh_prev; z_hn is the last third of z_h, ZN numbers a sample
    "gru_gates_backward": f"""
extern "C" __global__ void gru_gates_backward(const whole count, const real* dh, const real* r, const real* u,
        const real* n, const real* z_hn, const real* h_prev, real* dz_x, real* dz_h, real* dh_prev) {{{INDEX}{GATE}
    const real one = 1, d = dh[index], reset = r[index], update = u[index], fresh = n[index];
    const real dzn = d * (one - update) * (one - fresh * fresh);
    const real dzu = d * (h_prev[index] - fresh) * update * (one - update);
    const real dzr = dzn * z_hn[index / (F * P) * ZN + rest] * reset * (one - reset);
    dz_x[at] = dzr; dz_x[at + F * P] = dzu; dz_x[at + 2 * F * P] = dzn;
    dz_h[at] = dzr; dz_h[at + F * P] = dzu; dz_h[at + 2 * F * P] = dzn * reset;
    dh_prev[index] = d * update;
}}
""",
    # every window of a padded x as a column; for each of three axes K taps, S stride, D dilation, O windows,
    # X numbers of x from pixel to pixel; XN and XC from sample to sample and channel to channel, C channels
    "im2col": f"""
extern "C" __global__ void im2col(const whole count, const real* x, real* cols) {{{INDEX}
    whole rest = index;{AXES.format("p", "O")}{AXES.format("k", "K")}
    const whole from = (p0 * S0 + k0 * D0) * X0 + (p1 * S1 + k1 * D1) * X1 + (p2 * S2 + k2 * D2) * X2;
    cols[index] = x[rest / C * XN + rest % C * XC + from];
}}
""",
    # onto every pixel of x the sum of the columns that read it: each pixel by one thread, so that the order of
    # the sum is fixed and nothing is atomic; A pixels of x on each axis, and B of padding before them
    "add_columns": f"""
extern "C" __global__ void add_columns(const whole count, const real* cols, real* x) {{{INDEX}
    whole rest = index;{AXES.format("at", "A")}
    real sum = 0;{TAPS.format(0)}{TAPS.format(1)}{TAPS.format(2)}
        const whole column = ((rest * K0 + k0) * K1 + k1) * K2 + k2;
        sum += cols[((column * O0 + off0 / S0) * O1 + off1 / S1) * O2 + off2 / S2];
    }} }} }}
    x[rest / C * XN + rest % C * XC + at0 * X0 + at1 * X1 + at2 * X2] += sum;
}}
""",
}
